/* Runs a target on the files that are named, where there is no libFuzzer. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int main(int count, char **names)
{
    for (int i = 1; i < count; i++) {
        FILE *file = fopen(names[i], "rb");
        if (!file)
            return 2;
        uint8_t *bytes = malloc(1 << 16);
        size_t size = bytes ? fread(bytes, 1, 1 << 16, file) : 0;
        fclose(file);
        uint8_t *exact = malloc(size ? size : 1); /* so that a step outside is seen */
        if (!bytes || !exact)
            return 2;
        for (size_t k = 0; k < size; k++)
            exact[k] = bytes[k];
        fprintf(stderr, "%s\n", names[i]);
        LLVMFuzzerTestOneInput(exact, size);
        free(bytes);
        free(exact);
    }
    return 0;
}
