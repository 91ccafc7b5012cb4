"""Which notices a person should review, the workbook for it, and the answers."""
