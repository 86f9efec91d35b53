"""What any executable book could use: claims, exercises, themed and touchable figures."""
