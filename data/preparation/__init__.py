"""Wing: raw recordings to the store. The core (skeletons, splits, store) never imports it."""
