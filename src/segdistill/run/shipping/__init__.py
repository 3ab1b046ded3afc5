"""From a finished run to masks, and to the file that ships."""
