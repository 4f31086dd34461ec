#include <stdlib.h>
#include <string.h>

#define CAPACITY(ring) ((ring)->mask + 1)

struct ring {
	char *data;
	size_t head, tail, mask;
};

int ring_init(struct ring *ring, size_t capacity)
{
	if (capacity == 0 || (capacity & (capacity - 1)))
		return -1;
	memset(ring, 0, sizeof(*ring));
	ring->data = malloc(capacity);
	if (!ring->data)
		return -1;
	ring->mask = capacity - 1;
	return 0;
}

size_t ring_write(struct ring *ring, const char *from, size_t count)
{
	size_t space = CAPACITY(ring) - (ring->head - ring->tail), i;

	if (count > space)
		count = space;
	for (i = 0; i < count; i++) {
		ring->data[(ring->head + i) & ring->mask] = from[i];
	}
	ring->head += count; /* readers see all of it at once */
	return count;
}
