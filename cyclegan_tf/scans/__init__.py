"""Files ↔ slices of a head: image folders, NIfTI, DICOM, BIDS; intensity and framing."""
