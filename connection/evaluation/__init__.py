"""From cosines and labels to metrics with confidence intervals."""
