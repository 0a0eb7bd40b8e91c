"""Caption data sets in their own formats, the embedded clips, and features of clips."""
