"""Labelled clips through the whole product."""
