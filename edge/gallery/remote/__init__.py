"""A gallery on a server of the site: what is asked, and whose answers are believed."""
