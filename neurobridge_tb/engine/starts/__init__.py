"""Where a training starts: what is fitted in closed form."""
