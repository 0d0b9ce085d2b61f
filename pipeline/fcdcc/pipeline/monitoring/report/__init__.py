"""The report of an output's runs, made from their journals."""
