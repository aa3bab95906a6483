"""A generator -> a bank of view codes: `training views`."""
