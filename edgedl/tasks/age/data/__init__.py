"""Face data sets in their own formats, and faces as the deployed pipeline crops them; numpy only."""
