"""Where the object is: boxes by regression, merged over windows, scales and networks (paper: appendix A)."""
