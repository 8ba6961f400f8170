from fastpath.plane cimport Plane, Worker

cdef Worker* worker_new(Plane* plane, int index, int cpu) noexcept nogil
cdef void worker_free(Worker* w) noexcept nogil
cdef void* worker_main(void* argument) noexcept nogil
