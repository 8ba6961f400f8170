"""Runs of 4 KiB heap pages: taken best fit, joined with free neighbours when given back."""

from libc.stdint cimport uint8_t, uint32_t


cdef void list_push(Page* pages, uint32_t* head, uint32_t page) noexcept nogil:
    pages[page].previous = NO_PAGE
    pages[page].next = head[0]
    if head[0] != NO_PAGE:
        pages[head[0]].previous = page
    head[0] = page


cdef void list_remove(Page* pages, uint32_t* head, uint32_t page) noexcept nogil:
    cdef uint32_t previous = pages[page].previous
    cdef uint32_t following = pages[page].next
    if previous == NO_PAGE:
        head[0] = following
    else:
        pages[previous].next = following
    if following != NO_PAGE:
        pages[following].previous = previous


cdef void mark_free(Page* pages, uint32_t* free_runs, uint32_t first, uint32_t count) noexcept nogil:
    cdef uint32_t last = first + count - 1
    pages[first].use = pages[last].use = PAGE_FREE
    pages[first].first = pages[last].first = first
    pages[first].count = count
    list_push(pages, free_runs, first)


cdef void pages_init(Page* pages, uint32_t total, uint32_t* free_runs) noexcept nogil:
    free_runs[0] = NO_PAGE
    mark_free(pages, free_runs, 0, total)


cdef uint32_t best_fit(Page* pages, uint32_t head, uint32_t count) noexcept nogil:
    # a heap has some hundred pages and few free runs: walking them costs less than an index over them
    cdef uint32_t best = NO_PAGE
    while head != NO_PAGE:
        if pages[head].count >= count:
            # of equal runs the lowest, so that pages never used before stay untouched
            if best == NO_PAGE or pages[head].count < pages[best].count or (
                pages[head].count == pages[best].count and head < best
            ):
                best = head
        head = pages[head].next
    return best


cdef uint32_t pages_take(Page* pages, uint32_t* free_runs, uint32_t count, uint8_t use) noexcept nogil:
    cdef uint32_t first = best_fit(pages, free_runs[0], count)
    cdef uint32_t left, page
    if first == NO_PAGE:
        return NO_PAGE
    left = pages[first].count - count
    list_remove(pages, free_runs, first)
    if left != 0:
        mark_free(pages, free_runs, first + count, left)
    for page in range(first, first + count):
        pages[page].use = use
        pages[page].first = first
    pages[first].count = count
    return first


cdef void pages_give(Page* pages, uint32_t total, uint32_t* free_runs, uint32_t first) noexcept nogil:
    cdef uint32_t count = pages[first].count
    cdef uint32_t after = first + count
    cdef uint32_t before
    if after < total and pages[after].use == PAGE_FREE:
        list_remove(pages, free_runs, after)
        count += pages[after].count
    if first > 0 and pages[first - 1].use == PAGE_FREE:
        before = pages[first - 1].first
        list_remove(pages, free_runs, before)
        count += pages[before].count
        first = before
    mark_free(pages, free_runs, first, count)
