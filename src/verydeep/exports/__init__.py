"""Networks of ours as files for other engines, checked by running them there."""
