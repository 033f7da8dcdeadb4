/* Lines of text as JSON records, many in one call: the one loop of Rollway that looks at every byte an app writes.
 *
 * What a record is, `agent/wire/logline.py` says, and makes those that are no plain text: this stops before a line that
 * may be an object, that is no UTF-8, that is too long, or whose record finds no room. No state, no memory of its own. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { BLOCK = 16 };
typedef uint8_t block __attribute__((vector_size(BLOCK)));

/* Whether each of the next BLOCK bytes stands in JSON as it is: ASCII, no control character, no quote, no backslash. */
static bool is_plain(const uint8_t *at) {
    block bytes, special;
    memcpy(&bytes, at, BLOCK);
    special = (block)((bytes < 0x20) | (bytes >= 0x80) | (bytes == '"') | (bytes == '\\'));
    uint64_t halves[2];
    memcpy(halves, &special, BLOCK);
    return (halves[0] | halves[1]) == 0;
}

/* How many bytes the UTF-8 sequence of several bytes at `at` has, 0 where it is none (RFC 3629, section 4). */
static size_t utf8_sequence(const uint8_t *at, const uint8_t *end) {
    uint8_t low = 0x80, high = 0xBF;
    size_t more;
    if (*at >= 0xC2 && *at <= 0xDF) {
        more = 1;
    } else if (*at >= 0xE0 && *at <= 0xEF) {
        more = 2;
        if (*at == 0xE0) low = 0xA0;
        if (*at == 0xED) high = 0x9F;
    } else if (*at >= 0xF0 && *at <= 0xF4) {
        more = 3;
        if (*at == 0xF0) low = 0x90;
        if (*at == 0xF4) high = 0x8F;
    } else {
        return 0;
    }
    if ((size_t)(end - at) <= more || at[1] < low || at[1] > high) return 0;
    for (size_t next = 2; next <= more; next++)
        if ((at[next] & 0xC0) != 0x80) return 0;
    return more + 1;
}

/* Write one byte below 0x80 as JSON has it in a string; how many bytes that takes, at most 6. */
static size_t escape(uint8_t byte, uint8_t *out) {
    static const char SHORT[0x20] = {['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f', ['\r'] = 'r'};
    static const char HEX[] = "0123456789abcdef";
    if (byte >= 0x20 && byte != '"' && byte != '\\') {
        out[0] = byte;
        return 1;
    }
    out[0] = '\\';
    if (byte >= 0x20 || SHORT[byte]) {
        out[1] = byte >= 0x20 ? byte : (uint8_t)SHORT[byte];
        return 2;
    }
    memcpy(out + 1, "u00", 3);
    out[4] = (uint8_t)HEX[byte >> 4];
    out[5] = (uint8_t)HEX[byte & 0xF];
    return 6;
}

static bool may_be_object(const uint8_t *line, const uint8_t *end) {
    while (line < end && (*line == ' ' || (*line >= '\t' && *line <= '\r'))) line++;
    return line < end && *line == '{';
}

/* Write the line as the inside of a JSON string to `out`, which has room for six times as much; NULL where it is no
 * UTF-8, else the end of what was written. */
static uint8_t *write_text(const uint8_t *line, const uint8_t *end, uint8_t *out) {
    const uint8_t *start = line;
    while (line < end) {
        while (end - line >= BLOCK && is_plain(line)) {
            memcpy(out, line, BLOCK);
            line += BLOCK, out += BLOCK;
        }
        if (end - line < BLOCK && end - start >= BLOCK && is_plain(end - BLOCK)) {
            /* The last bytes, and those before them once more: they stand in `out` as they are. */
            memcpy(out + (end - line) - BLOCK, end - BLOCK, BLOCK);
            return out + (end - line);
        }
        for (const uint8_t *stop = end - line > BLOCK ? line + BLOCK : end; line < stop;) {
            if (*line < 0x80) {
                out += escape(*line++, out);
                continue;
            }
            size_t count = utf8_sequence(line, end);
            if (count == 0) return NULL;
            memcpy(out, line, count);
            line += count, out += count;
        }
    }
    return out;
}

enum stop { ENDED, FULL, ODD };

/* Make records, each `head`, the line and `tail`, of the lines that end in `lines[0..count]`, none of them longer than
 * `bound`, in `out[0..room]`. How many bytes of records there are; `*used` is how many bytes of lines they are of, and
 * `*stop` whether the rest has no newline and is not too long, finds no room, or begins with a line of another kind. */
size_t rollway_text_records(const uint8_t *lines, size_t count, size_t bound, const uint8_t *head, size_t head_count,
                            const uint8_t *tail, size_t tail_count, uint8_t *out, size_t room, size_t *used, int *stop) {
    const uint8_t *line = lines, *end = lines + count;
    uint8_t *made = out;
    *stop = ENDED;
    while (line < end) {
        const uint8_t *newline = memchr(line, '\n', (size_t)(end - line));
        size_t length = (size_t)((newline == NULL ? end : newline) - line);
        if (length > bound || (newline != NULL && may_be_object(line, newline))) {
            *stop = ODD;
            break;
        }
        if (newline == NULL) break;
        if (head_count + 6 * length + tail_count > room - (size_t)(made - out)) {
            *stop = FULL;
            break;
        }
        memcpy(made, head, head_count);
        uint8_t *text_end = write_text(line, newline, made + head_count);
        if (text_end == NULL) {
            *stop = ODD;
            break;
        }
        memcpy(text_end, tail, tail_count);
        made = text_end + tail_count;
        line = newline + 1;
    }
    *used = (size_t)(line - lines);
    return (size_t)(made - out);
}
