/* Compression of messages; see _deflate.c. */

#include <stddef.h>
#include <stdint.h>

/* Compress into `out`. Returns the bytes written; 0 where they would be more than `room`, or memory is short. */
size_t deflate_bytes(const uint8_t *data, size_t size, uint8_t *out, size_t room);
