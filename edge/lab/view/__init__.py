"""A page on which somebody who aims a camera sees what it shows, and what is made of it."""
