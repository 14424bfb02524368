"""Where samples come from: named sets, `.npz` files and the user's own factories."""
