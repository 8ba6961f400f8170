from fastpath.plane cimport Plane

cdef dict collect(Plane* plane)
