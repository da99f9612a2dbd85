"""Networks as OpenVINO graphs: their file format, how they are made (with torch) and found (without)."""
