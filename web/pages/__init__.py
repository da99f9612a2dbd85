"""What people see: templates, scripts and styles, all of them in the package."""
