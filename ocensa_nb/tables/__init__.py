"""Tables as files: CSV and XLSX read and written in the form a Spanish Excel uses."""
