"""A generator's weights -> a bank of view codes: `training views`."""
