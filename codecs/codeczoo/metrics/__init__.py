"""Floor 2: measures of pictures, codes and rates. Pure torch; nothing here is imported by inference."""
