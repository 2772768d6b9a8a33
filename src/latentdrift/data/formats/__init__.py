"""Reading the formats of scanners and archives: NIfTI and DICOM."""
