"""What a run leaves behind: manifest, case files, pictures, the report page, and the comparison of two reports."""
