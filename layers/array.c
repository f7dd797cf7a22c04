/* Growable arrays in mappings of their own; see array_internal.h. */
#include "layers/array_internal.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define FIRST_CAPACITY ((size_t)64 << 10)

static int grow(struct array *array, size_t need)
{
	size_t capacity = array->capacity ? array->capacity : FIRST_CAPACITY;
	while (capacity < need) {
		if (__builtin_mul_overflow(capacity, (size_t)2, &capacity))
			return -ENOMEM;
	}
	void *data = array->data
			     ? mremap(array->data, array->capacity, capacity, MREMAP_MAYMOVE)
			     : mmap(NULL, capacity, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (data == MAP_FAILED)
		return -ENOMEM;
	array->data = data;
	array->capacity = capacity;
	return 0;
}

void *array_extend(struct array *array, size_t bytes)
{
	size_t need;
	if (__builtin_add_overflow(array->used, bytes, &need))
		return NULL;
	if ((need > array->capacity || !array->data) && grow(array, need))
		return NULL;
	void *at = array->data + array->used;
	array->used = need;
	return at;
}

int array_append(struct array *array, const void *from, size_t bytes)
{
	void *at = array_extend(array, bytes);
	if (!at)
		return -ENOMEM;
	if (bytes)
		memcpy(at, from, bytes);
	return 0;
}

void array_free(struct array *array)
{
	if (array->data)
		munmap(array->data, array->capacity);
	*array = (struct array){ 0 };
}
