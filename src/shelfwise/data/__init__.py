"""Pictures and text as data: open, measure, group, clean."""
