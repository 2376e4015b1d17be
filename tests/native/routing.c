/* The trie and its cache against a matcher that a child could check, and what a look-up costs. */
#include "harness.h"

#include <regex.h>

#define MOST 64

struct naive { /* an interest, as text */
    bool used, handler, lossy;
    uint16_t slot;
    uint8_t bit;
    uint64_t id;
    char pattern[64], group[16];
};

static bool naive_match(const char *pattern, const char *type)
{
    for (;;) {
        size_t p = strcspn(pattern, "."), t = strcspn(type, ".");
        if (p == 1 && *pattern == '>')
            return true;
        if (!(p == 1 && *pattern == '*') && (p != t || strncmp(pattern, type, p)))
            return false;
        pattern += p;
        type += t;
        if (!*pattern || !*type)
            return *pattern == *type;
        pattern++;
        type++;
    }
}

static const uint8_t ranks[8] = {SB_RANK_HERE, SB_RANK_LINK, SB_RANK_HERE, SB_RANK_KEEPER,
                                 SB_RANK_HERE, SB_RANK_LINK, SB_RANK_HERE, SB_RANK_HERE};

/* A leading wildcard does not match the bus's own types, and what a link brought is for no other. */
static bool naive_wants(const struct naive *n, const char *type, bool relayed)
{
    if (*type == '$' && (*n->pattern == '*' || *n->pattern == '>'))
        return false;
    return n->used && naive_match(n->pattern, type) && !(relayed && ranks[n->slot]);
}

/* The lowest rank of those that handle the type, or of the members of the group with this bit. */
static uint8_t naive_lowest(const struct naive *wanted, const char *type, bool relayed, uint8_t bit)
{
    uint8_t lowest = UINT8_MAX;
    for (int i = 0; i < MOST; i++)
        if (naive_wants(&wanted[i], type, relayed) && (bit ? wanted[i].bit == bit : wanted[i].handler) &&
            ranks[wanted[i].slot] < lowest)
            lowest = ranks[wanted[i].slot];
    return lowest;
}

/* < 0: `a` is more specific, token by token: literal, then *, then > */
static int naive_compare(const char *a, const char *b)
{
    for (;;) {
        int ra = *a == '>' ? 2 : *a == '*' ? 1 : 0, rb = *b == '>' ? 2 : *b == '*' ? 1 : 0;
        if (ra != rb)
            return ra - rb;
        a += strcspn(a, ".");
        b += strcspn(b, ".");
        if (!*a || !*b)
            return 0;
        a++;
        b++;
    }
}

static void random_pattern(uint64_t *seed, char *text, bool wild)
{
    static const char *tokens[] = {"a", "b", "c", "$x", "long-token_1"};
    int count = 1 + (int)(draw(seed) % 4), at = 0;
    for (int i = 0; i < count; i++) {
        const char *token = tokens[draw(seed) % 5];
        if (*token == '$' && i)
            token = "b";
        if (wild && draw(seed) % 4 == 0)
            token = "*";
        if (wild && i == count - 1 && draw(seed) % 4 == 0)
            token = ">";
        at += sprintf(text + at, i ? ".%s" : "%s", token);
    }
}

static void compare(struct dp_routes *r, const struct naive *wanted, const char *type, bool relayed)
{
    dp_pin_routes(r);
    struct dp_route *route = dp_lookup(r, (const uint8_t *)type, (uint16_t)strlen(type), relayed ? SB_RELAYED : 0);
    uint8_t lowest = naive_lowest(wanted, type, relayed, 0);
    CHECK(route);
    EQUAL(route->reserved, *type == '$');
    const char *best = NULL;
    for (int i = 0; i < MOST; i++)
        if (naive_wants(&wanted[i], type, relayed) && wanted[i].handler && ranks[wanted[i].slot] == lowest &&
            (!best || naive_compare(wanted[i].pattern, best) < 0))
            best = wanted[i].pattern;
    uint32_t plain = 0, members = 0, handlers = 0;
    for (uint16_t slot = 0; slot < 8; slot++) {
        bool wants = false, lossy = true, handles = false;
        for (int i = 0; i < MOST; i++) {
            const struct naive *n = &wanted[i];
            if (!naive_wants(n, type, relayed) || n->slot != slot)
                continue;
            if (n->handler)
                handles |= ranks[slot] == lowest && strcmp(n->pattern, best) == 0;
            else if (!n->bit && ranks[slot] != SB_RANK_KEEPER)
                wants = true, lossy &= n->lossy;
        }
        bool found = false;
        for (uint32_t i = 0; i < route->plain.count; i++)
            if (route->plain.list[i].slot == slot) {
                CHECK(!found && route->plain.list[i].lossy == lossy);
                found = true;
            }
        EQUAL(found, wants);
        plain += wants;
        found = false;
        for (uint32_t i = 0; i < route->handlers.count; i++)
            if (route->handlers.list[i].slot == slot) {
                CHECK(!found);
                found = true;
            }
        EQUAL(found, handles);
        handlers += handles;
        for (int g = 0; g < 3; g++) {
            char group[16];
            snprintf(group, sizeof group, "g%d", g);
            bool member = false;
            lossy = true;
            for (int i = 0; i < MOST; i++)
                if (naive_wants(&wanted[i], type, relayed) && wanted[i].bit == g + 1 && wanted[i].slot == slot &&
                    ranks[slot] == naive_lowest(wanted, type, relayed, (uint8_t)(g + 1)))
                    member = true, lossy &= wanted[i].lossy;
            uint32_t times = 0;
            for (uint32_t k = 0; k < route->group_count; k++)
                for (uint32_t m = 0; m < route->groups[k].members.count; m++) {
                    const struct dp_receiver *x = &route->groups[k].members.list[m];
                    if (strcmp(route->groups[k].group->name, group) == 0 && x->slot == slot) {
                        EQUAL(x->lossy, lossy);
                        times++;
                    }
                }
            EQUAL(times, member);
            members += member;
        }
    }
    EQUAL(route->plain.count, plain);
    EQUAL(route->handlers.count, handlers);
    for (uint32_t k = 0; k < route->group_count; k++)
        members -= route->groups[k].members.count;
    EQUAL(members, 0);
}

TEST(routes_agree_with_a_naive_matcher)
{
    for (uint64_t round = 1; round <= 40; round++) {
        uint64_t seed = round * 77777, next = 0;
        struct dp_routes r;
        struct naive wanted[MOST] = {0};
        CHECK(dp_routes_open(&r, 8));
        memcpy(r.ranks, ranks, sizeof ranks);
        for (int step = 0; step < 300; step++) {
            struct naive *n = &wanted[draw(&seed) % MOST];
            if (n->used) {
                CHECK(dp_remove_interest(&r, n->slot, n->id));
                CHECK(!dp_remove_interest(&r, n->slot, n->id));
                n->used = false;
            } else {
                *n = (struct naive){.used = true, .slot = (uint16_t)(draw(&seed) % 8), .handler = draw(&seed) % 3 == 0,
                                    .lossy = draw(&seed) % 2, .id = ++next};
                random_pattern(&seed, n->pattern, true);
                if (!n->handler && draw(&seed) % 2) {
                    n->bit = (uint8_t)(1 + draw(&seed) % 3);
                    snprintf(n->group, sizeof n->group, "g%d", n->bit - 1);
                }
                struct sb_interest e = {.op = SB_INTEREST_ADD, .bit = n->bit,
                                        .role = n->handler ? SB_ROLE_HANDLE : SB_ROLE_SUBSCRIBE,
                                        .flags = n->lossy ? SB_DROP_NEWEST : 0, .id = n->id,
                                        .pattern_length = (uint16_t)strlen(n->pattern),
                                        .group_length = (uint16_t)strlen(n->group)};
                CHECK(dp_add_interest(&r, n->slot, &e, n->pattern, n->group));
            }
            for (int k = 0; k < 6; k++) {
                char type[64];
                random_pattern(&seed, type, false);
                compare(&r, wanted, type, draw(&seed) % 2);
            }
        }
        for (uint16_t slot = 0; slot < 8; slot++)
            dp_remove_interests(&r, slot);
        EQUAL(r.pattern_count, 0);
        EQUAL(r.trie.nodes.live, 0); /* nothing is kept of what nobody wants any more */
        EQUAL(r.trie.root->children, 0);
        dp_routes_close(&r);
    }
}

TEST(tokens_are_valid_exactly_as_documented)
{
    const struct { const char *text; bool type, pattern; } cases[] = {
        {"a", 1, 1}, {"a.b-c_D.9", 1, 1}, {"$bus.x", 1, 1}, {"*", 0, 1}, {">", 0, 1}, {"a.*.b", 0, 1}, {"a.>", 0, 1},
        {"", 0, 0}, {".", 0, 0}, {"a.", 0, 0}, {".a", 0, 0}, {"a..b", 0, 0}, {">.a", 0, 0}, {"a*", 0, 0},
        {"a.b>", 0, 0}, {"a.$b", 0, 0}, {"$a.$b", 0, 0},
        {"$", 0, 0}, {"a b", 0, 0}, {"a/b", 0, 0}, {"\xc3\xa4", 0, 0}, {"a$b", 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t n = strlen(cases[i].text);
        EQUAL(dp_valid_tokens(cases[i].text, n, false), cases[i].type);
        EQUAL(dp_valid_tokens(cases[i].text, n, true), cases[i].pattern);
    }
    char text[300];
    memset(text, 'a', sizeof text);
    CHECK(dp_valid_tokens(text, 255, false) && !dp_valid_tokens(text, 256, false));
}

/* The expressions of shmbus/shared/patterns.py; a type may be the bus's own here. */
TEST(every_short_text_is_a_type_or_a_pattern_here_exactly_if_it_is_one_in_python)
{
    const char letters[] = "a9.$*> ";
    const size_t base = sizeof letters - 1;
    regex_t type, pattern;
    CHECK(!regcomp(&type, "^\\$?[A-Za-z0-9_-]+(\\.[A-Za-z0-9_-]+)*$", REG_EXTENDED | REG_NOSUB));
    CHECK(!regcomp(&pattern, "^(>|(\\*|\\$?[A-Za-z0-9_-]+)(\\.(\\*|[A-Za-z0-9_-]+))*(\\.>)?)$",
                   REG_EXTENDED | REG_NOSUB));
    for (size_t length = 0, texts = 1; length <= 5; length++, texts *= base)
        for (size_t i = 0; i < texts; i++) {
            char text[8] = {0};
            for (size_t k = 0, rest = i; k < length; k++, rest /= base)
                text[k] = letters[rest % base];
            bool is_type = !regexec(&type, text, 0, NULL, 0), is_pattern = !regexec(&pattern, text, 0, NULL, 0);
            if (dp_valid_tokens(text, length, false) != is_type || dp_valid_tokens(text, length, true) != is_pattern)
                fprintf(stderr, "%s\n", text);
            EQUAL(dp_valid_tokens(text, length, false), is_type);
            EQUAL(dp_valid_tokens(text, length, true), is_pattern);
        }
    regfree(&type);
    regfree(&pattern);
}

static void add_subscription(struct dp_routes *r, uint16_t slot, uint64_t id, const char *pattern)
{
    struct sb_interest e = {.op = SB_INTEREST_ADD, .role = SB_ROLE_SUBSCRIBE, .id = id,
                            .pattern_length = (uint16_t)strlen(pattern)};
    CHECK(dp_add_interest(r, slot, &e, pattern, ""));
}

static struct dp_route *look(struct dp_routes *r, const char *type)
{
    dp_pin_routes(r);
    struct dp_route *route = dp_lookup(r, (const uint8_t *)type, (uint16_t)strlen(type), 0);
    CHECK(route);
    return route;
}

/* How many slots a search would pass in the hash table of tokens: what a walk costs, without a clock. */
static uint64_t longest_probe(const struct sb_table *t)
{
    uint64_t longest = 0;
    for (uint64_t i = 0; t->slots && i <= t->mask; i++)
        if (t->slots[i].item && t->slots[i].item != SB_TOMB) {
            uint64_t probe = (i - t->slots[i].hash) & t->mask;
            longest = probe > longest ? probe : longest;
        }
    return longest;
}

TEST(ten_thousand_patterns_and_a_hundred_thousand_types_do_not_slow_a_known_type)
{
    struct dp_routes r;
    CHECK(dp_routes_open(&r, 8));
    char text[64];
    for (uint64_t i = 0; i < 10000; i++) {
        snprintf(text, sizeof text, i % 3 ? "p%d.q%d.*" : "p%d.q%d.r", (int)(i / 100), (int)i);
        add_subscription(&r, (uint16_t)(i % 8), i + 1, text);
    }
    EQUAL(r.pattern_count, 10000);
    CHECK(longest_probe(&r.trie.nodes) < 64);
    struct dp_route *known = look(&r, "p7.q700.r");
    EQUAL(known->plain.count, 1);
    uint64_t version = known->version;
    for (int i = 0; i < 100000; i++) {
        snprintf(text, sizeof text, "type.%d", i);
        look(&r, text);
        if (i % 64 == 0) { /* a type in use stays known: the same entry, and it was not resolved again */
            uint64_t lookups = r.lookups;
            CHECK(dp_is_route(known, (const uint8_t *)"p7.q700.r", 9, 9));
            CHECK(look(&r, "p7.q700.r") == known);
            EQUAL(known->version, version);
            EQUAL(r.lookups, lookups + 2); /* the pin and one set of the cache */
            CHECK(look(&r, "p7.q700.r") == known);
            EQUAL(r.lookups, lookups + 3); /* the pin alone: it was the last */
        }
    }
    CHECK(r.types_known <= DP_CACHE_SETS * DP_CACHE_WAYS); /* bounded */
    CHECK(r.types_known > DP_CACHE_SETS * DP_CACHE_WAYS * 3 / 4); /* and used */
    dp_routes_close(&r);
}

TEST(subscribing_and_unsubscribing_for_ever_takes_no_more_memory)
{
    struct dp_routes r;
    CHECK(dp_routes_open(&r, 1));
    char text[64];
    for (uint64_t id = 1; id <= 20000; id++) {
        snprintf(text, sizeof text, "view.%d.>", (int)id);
        add_subscription(&r, 0, id, text);
        CHECK(r.trie.nodes.used <= r.trie.nodes.mask); /* else a search for what is not there never ends */
        CHECK(dp_remove_interest(&r, 0, id));
    }
    EQUAL(r.trie.nodes.live, 0);
    CHECK(r.trie.nodes.mask < 256);
    dp_routes_close(&r);
}

static void drop_nothing(struct sb_node *n) { (void)n; }

TEST(tokens_that_somebody_made_to_have_the_same_hash_are_two)
{
    struct sb_trie t;
    CHECK(sb_trie_open(&t, sizeof(struct sb_node)));
    struct { uint64_t words[3]; } a, b; /* of the second word follows from the others that the hashes are the same */
    memcpy(&a, "aaaaaaaabbbbbbbbcccccccc", sizeof a);
    memcpy(&b, "dddddddd........cccccccc", sizeof b);
    uint64_t seed = (uint64_t)(uintptr_t)t.root ^ 0x9e3779b97f4a7c15ull ^ sizeof a;
    while (memchr(&a, '.', sizeof a) || memchr(&b, '.', sizeof b)) {
        a.words[1] += 0x0101010101010101ull; /* any of its bytes may be what makes the other's a dot */
        uint64_t one = (seed ^ a.words[0]) * 0x9fb21c651e98df25ull, other = (seed ^ b.words[0]) * 0x9fb21c651e98df25ull;
        b.words[1] = a.words[1] ^ one ^ one >> 32 ^ other ^ other >> 32;
    }
    EQUAL(sb_hash(&a, sizeof a, (uint64_t)(uintptr_t)t.root), sb_hash(&b, sizeof b, (uint64_t)(uintptr_t)t.root));
    struct sb_node *first = sb_trie_find(&t, (const char *)&a, sizeof a, true);
    struct sb_node *second = sb_trie_find(&t, (const char *)&b, sizeof b, true);
    CHECK(first && second && first != second);
    CHECK(sb_trie_find(&t, (const char *)&a, sizeof a, false) == first);
    CHECK(sb_trie_find(&t, (const char *)&b, sizeof b, false) == second);
    sb_trie_close(&t, drop_nothing);
}

TEST(routes_of_a_run_stay_until_the_next)
{
    struct dp_routes r;
    CHECK(dp_routes_open(&r, 1));
    dp_pin_routes(&r);
    struct dp_route *seen[DP_RUN];
    char text[64];
    uint32_t full = 0;
    for (int i = 0; i < 20000; i++) {
        snprintf(text, sizeof text, "t.%d", i);
        struct dp_route *route = dp_lookup(&r, (const uint8_t *)text, (uint16_t)strlen(text), 0);
        if (i < (int)DP_RUN) {
            CHECK(route);
            seen[i] = route;
        }
        full += !route;
    }
    CHECK(full > 0); /* there is no space for that many in one run */
    for (int i = 0; i < (int)DP_RUN; i++) {
        snprintf(text, sizeof text, "t.%d", i);
        CHECK(dp_is_route(seen[i], (const uint8_t *)text, (uint16_t)strlen(text), (uint16_t)strlen(text)));
    }
    look(&r, "t.19999");
    dp_routes_close(&r);
}

TEST(a_change_of_interests_is_seen_by_the_next_lookup)
{
    struct dp_routes r;
    CHECK(dp_routes_open(&r, 4));
    EQUAL(look(&r, "a.b")->plain.count, 0);
    add_subscription(&r, 2, 1, "a.*");
    EQUAL(look(&r, "a.b")->plain.count, 1);
    add_subscription(&r, 3, 1, ">");
    EQUAL(look(&r, "a.b")->plain.count, 2);
    dp_remove_interests(&r, 2);
    EQUAL(look(&r, "a.b")->plain.count, 1);
    EQUAL(look(&r, "a.b")->plain.list[0].slot, 3);
    dp_routes_close(&r);
}

static uint64_t cpu_used(void) /* not the time: who else runs here is not our business */
{
    struct timespec t;
    CHECK(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t) == 0);
    return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

TEST(what_an_interest_costs_does_not_grow_with_those_for_the_same_pattern)
{
    struct dp_routes *r = malloc(sizeof *r);
    CHECK(r && dp_routes_open(r, 1));
    uint64_t start = cpu_used();
    for (uint64_t id = 1; id <= 60000; id++) /* a subscription that nobody closes, say */
        add_subscription(r, 0, id, "x");
    dp_remove_interests(r, 0);
    CHECK(cpu_used() - start < SECOND); /* where it grows, it is several */
    dp_routes_close(r);
    free(r);
}

/* Groups ------------------------------------------------------------------------------------------------------ */

TEST(a_group_in_which_nobody_is_any_more_takes_no_memory)
{
    struct world *w = new_world();
    struct peer *p = join(w, "p"), *other = join(w, "other"), *source = join(w, "source");
    drop_log(p);
    open_log(p, 2, 1 << 20);
    for (int i = 0; i < 2000; i++) {
        char group[32];
        snprintf(group, sizeof group, "results-of-%d", i);
        uint64_t id = subscribe_group(p, "result", group, (uint8_t)(1 + i % 31));
        if (i == 0)
            subscribe_group(other, "result", group, 1);
        CHECK(publish(source, "result", "1"));
        settle(w);
        EQUAL(count_messages(p) + count_messages(other), 1 + (i > 0));
        remove_interest(p, id);
    }
    EQUAL(w->f->routes.groups.live, 31 + 1); /* the last 31 of p's: messages for them might be in hand */
    die(p, SB_REASON_KILLED);
    EQUAL(w->f->routes.groups.live, 1);
    CHECK(publish(source, "result", "stays"));
    settle(w);
    GETS(other, "stays");
    die(other, SB_REASON_KILLED);
    EQUAL(w->f->routes.groups.live, 0);
    close_world(w);
}

TEST(a_group_stays_while_work_for_it_waits_in_a_backlog)
{
    struct world *w = new_world();
    struct peer *p = join(w, "p"), *source = join(w, "source");
    rb_store(&p->up->receivers, 1);
    subscribe_group(p, "job", "g", 1);
    for (int i = 0; i < 3; i++)
        CHECK(publish(source, "job", "1"));
    settle(w);
    CHECK(rb_load(&w->bus->backlog[0]));
    die(p, SB_REASON_KILLED);
    advance(w, 3 * SECOND); /* a backlog that is empty goes, too */
    EQUAL(rb_load(&w->bus->backlog[0]), 0);
    EQUAL(w->f->routes.groups.live, 0);
    EQUAL(rb_load(&w->bus->dead_letters), 3);
    close_world(w);
}
