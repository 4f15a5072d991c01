"""What was found, told: tables, pictures, the report."""
