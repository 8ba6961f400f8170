"""Runs of 4 KiB heap pages: taken best fit, joined with free neighbours when given back.

The book-keeping lies outside the heap, so that nothing written past a block's end can damage it.
Every function: the caller holds the arena's lock.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

cdef enum:
    HEAP_PAGE = 4096
    NO_PAGE = 0xFFFFFFFF

cdef enum PageUse:
    PAGE_UNUSED = 0
    PAGE_FREE = 1
    PAGE_LARGE = 2    # one block
    PAGE_SLAB = 3     # many blocks of one size class

cdef struct Page:
    # Read and written under the arena's lock. Of a free run only the first and the last page are kept up to date; of a
    # run in use, `use` and `first` of every page and the rest of the first page.
    uint32_t first        # the run's first page
    uint32_t count        # pages in the run
    uint32_t previous     # neighbours in the list of free runs, or of a size class's slabs with room
    uint32_t next
    void* blocks          # slab: its free blocks
    uint16_t live         # slab: blocks that are not in `blocks`
    uint8_t use
    uint8_t size_class

cdef void pages_init(Page* pages, uint32_t total, uint32_t* free_runs) noexcept nogil
# the run's first page; NO_PAGE when no free run is long enough
cdef uint32_t pages_take(Page* pages, uint32_t* free_runs, uint32_t count, uint8_t use) noexcept nogil
cdef void pages_give(Page* pages, uint32_t total, uint32_t* free_runs, uint32_t first) noexcept nogil
cdef void list_push(Page* pages, uint32_t* head, uint32_t page) noexcept nogil
cdef void list_remove(Page* pages, uint32_t* head, uint32_t page) noexcept nogil
