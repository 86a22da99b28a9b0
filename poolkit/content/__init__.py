"""The bytes of volumes: copies, images, wiping. Knows descriptors and no pools."""
