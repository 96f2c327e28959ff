/* Runs a fuzzer without libFuzzer.
 *
 *   fuzz_x RUNS SECONDS    the seeds, then what is made of them, until either ends
 *   fuzz_x --seeds FOLDER  writes the seeds to files, for libFuzzer
 *
 * Where the rest is compiled with -fsanitize-coverage=trace-pc (and this file is not),
 * an input that reaches something new is kept and changed further. The same numbers
 * give the same inputs each time. What fails is in the file "fuzz-input".
 */
#include "base/clock.h"
#include "fuzz.h"

enum { INPUT_MAX = 4096, KEPT_MAX = 4096, EDGES = 1 << 16 };

static octets kept[KEPT_MAX];
static size_t n_kept;
static uint8_t seen[EDGES]; /* by any input */
static bool found;          /* by this one, something new */
static const char *input_file = "fuzz-input";

void __sanitizer_cov_trace_pc(void);

void
__sanitizer_cov_trace_pc(void)
{
    uintptr_t pc = (uintptr_t)__builtin_return_address(0);
    size_t edge = (pc ^ pc >> 16) % EDGES;
    if (!seen[edge])
        seen[edge] = found = true;
}

static uint64_t random_state = 88172645463325252u;

static size_t
random_below(size_t n)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return n == 0 ? 0 : (size_t)(random_state >> 11) % n;
}

static void
run(const uint8_t *data, size_t size)
{
    uint8_t *copy = copy_of(data, size);
    found = false;
    LLVMFuzzerTestOneInput(copy, size);
    if (found && n_kept < KEPT_MAX)
        kept[n_kept++] = (octets){copy, size};
    else
        free(copy);
}

static size_t
change(uint8_t *data, size_t size)
{
    static const uint8_t numbers[] = {0, 1, 2, 4, 6, 8, 0x7f, 0x80, 0xff};
    size_t at = random_below(size + 1), n = 1 + random_below(random_below(2) ? 4 : 64);
    switch (random_below(8)) {
    case 0:
        if (at < size)
            data[at] ^= (uint8_t)(1u << random_below(8));
        break;
    case 1:
        if (at < size)
            data[at] = (uint8_t)random_below(256);
        break;
    case 2:
        if (at < size)
            data[at] = numbers[random_below(sizeof(numbers))];
        break;
    case 3: /* some octets more */
        n = n < INPUT_MAX - size ? n : INPUT_MAX - size;
        memmove(data + at + n, data + at, size - at);
        memset(data + at, (int)random_below(256), n);
        return size + n;
    case 4: /* some less */
        n = n < size - at ? n : size - at;
        memmove(data + at, data + at + n, size - at - n);
        return size - n;
    case 5: /* a piece of itself elsewhere */
        n = n < size - at ? n : size - at;
        memmove(data + random_below(size - n + 1), data + at, n);
        break;
    case 6: { /* the end of another */
        octets other = kept[random_below(n_kept)];
        size_t from = random_below(other.size + 1);
        n = other.size - from < INPUT_MAX - at ? other.size - from : INPUT_MAX - at;
        memcpy(data + at, other.data + from, n);
        return at + n;
    }
    default:
        return at;
    }
    return size;
}

static void
write_file(const char *name, const uint8_t *data, size_t size)
{
    FILE *file = fopen(name, "wb");
    if (file == NULL)
        return;
    fwrite(data, 1, size, file);
    fclose(file);
}

static const uint8_t *current;
static size_t current_size;

/* A check has failed, or a sanitizer has something to say. */
void __asan_on_error(void);

void
__asan_on_error(void)
{
    write_file(input_file, current, current_size);
}

static int
write_seeds(const char *folder)
{
    for (size_t i = 0; fuzz_seeds[i] != NULL; i++) {
        char name[1024];
        octets o = hex(fuzz_seeds[i]);
        snprintf(name, sizeof(name), "%s/seed-%zu", folder, i);
        write_file(name, o.data, o.size);
    }
    return 0;
}

int
main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    if (strcmp(argv[1], "--seeds") == 0)
        return write_seeds(argv[2]);
    long runs = atol(argv[1]), done = 0;
    int64_t end_ns = azs_clock_ns() + atol(argv[2]) * AZS_NS_PER_S;
    atexit(__asan_on_error); /* check_failed() exits; forgotten below */
    for (size_t i = 0; fuzz_seeds[i] != NULL && n_kept < KEPT_MAX; i++) {
        octets o = hex(fuzz_seeds[i]);
        current = o.data;
        current_size = o.size;
        run(o.data, o.size);
        kept[n_kept++] = o;
    }
    static uint8_t data[INPUT_MAX];
    for (; done < runs && (done % 256 != 0 || azs_clock_ns() < end_ns); done++) {
        octets from = kept[random_below(n_kept)];
        size_t size = from.size < INPUT_MAX ? from.size : INPUT_MAX;
        memcpy(data, from.data, size);
        for (size_t n = 1 + random_below(6); n > 0; n--)
            size = change(data, size);
        current = data;
        current_size = size;
        run(data, size);
    }
    size_t reached = 0;
    for (size_t i = 0; i < EDGES; i++)
        reached += seen[i];
    printf("%ld runs, %zu inputs kept, %zu edges\n", done, n_kept, reached);
    fflush(stdout);
    _Exit(0);
}
