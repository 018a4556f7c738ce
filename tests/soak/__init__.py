"""Minutes at saturation: does memory stay flat, is anything leaked, do answers slow down?"""
