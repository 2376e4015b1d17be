/* An endpoint's log of interests, byte by byte: it is read or refused, and leaves nothing behind in the routes. */
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct world *w = open_world((struct plan){.slots = 4});
    struct peer *g = join(w, "guilty"), *a = join(w, "a");
    subscribe(a, "a.*");
    forget_names(w);
    struct dp_port *p = &w->f->ports[g->slot];
    uint64_t rounded = (size + 7) & ~(uint64_t)7; /* exact, so that a step outside is seen */
    struct sb_interests *log = calloc(1, sizeof *log + rounded);
    CHECK(log);
    memcpy(log + 1, bytes, size);
    rb_store(&log->bytes, size % 16 == 3 ? rounded + 8 : size); /* once in a while it lies about its end */
    p->interests = log; /* as if it had been mapped */
    p->interests_serial = rb_load(&g->up->outgoing[SB_DATA].interests_serial);
    p->interests_size = sizeof *log + rounded;
    rb_store(&g->up->outgoing[SB_DATA].interests_version, 1);
    enum dp_reading reading = dp_read_interests(w->f, p);
    CHECK(reading == DP_READ_ALL || reading == DP_READ_GARBAGE);
    static const char *types[] = {"a.b", "a", "a.b.c", "$bus.endpoint.up", "x-1.y_2"};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        dp_pin_routes(&w->f->routes);
        struct dp_route *route = dp_lookup(&w->f->routes, (const uint8_t *)types[i], (uint16_t)strlen(types[i]), 0);
        CHECK(route);
        for (uint32_t k = 0; k < route->plain.count; k++)
            CHECK(route->plain.list[k].slot == g->slot || route->plain.list[k].slot == a->slot);
        for (uint32_t n = 0; n < route->group_count; n++) {
            const struct dp_receivers *members = &route->groups[n].members;
            for (uint32_t k = 0; k < members->count; k++)
                CHECK(members->list[k].slot == g->slot && members->list[k].bit > 0 && members->list[k].bit < SB_GROUPS);
        }
    }
    publish(a, "a.b", "still");
    settle(w);
    GETS(a, "still");
    dp_remove_interests(&w->f->routes, (uint16_t)g->slot);
    EQUAL(w->f->routes.pattern_count, 1);
    EQUAL(w->f->routes.trie.nodes.live, 1);
    p->interests = NULL;
    p->interests_serial = 0;
    free(log);
    close_world(w);
    return 0;
}
