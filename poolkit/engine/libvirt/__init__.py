"""The storage of a libvirt host: what its folders or a connection say, taken over; and the other way, written for it."""
