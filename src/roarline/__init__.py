"""roarline: which attribution method tells the truth about an image classifier?"""

__version__ = "0.1.0"
