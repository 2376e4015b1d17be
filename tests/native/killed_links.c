/* The dispatcher is killed while it deals with a link that dies, or with what a link has brought (killed.h). */
#include "killed.h"

/* A link with untouched work, and its keeper. */
static void prepare_link_death(struct stage *s)
{
    s->a = join_sized(s->w, "a", TINY);
    s->b = join_sized(s->w, "@link", TINY);
    s->c = join_sized(s->w, "@@link", TINY);
    for (int i = 0; i < 2; i++) {
        struct peer *p = i ? s->b : s->c;
        subscribe_group(p, "job", "g", 1);
        handle(p, "ask");
    }
    CHECK(publish(s->a, "job", "job"));
    CHECK(send_to_handler(s->a, "ask", "command"));
    ask(s->a, "ask", "request");
    settle(s->w);
}

static void check_link_death(struct stage *s)
{
    struct message m;
    uint32_t got[SB_REQUEST + 1] = {0};
    die(s->b, SB_REASON_KILLED);
    advance(s->w, SECOND);
    while (take(s->c, &m)) {
        got[m.header.kind]++;
        if (m.header.kind == SB_REQUEST)
            CHECK(answer(s->c, &m, "by another"));
    }
    for (int kind = SB_EVENT; kind <= SB_REQUEST; kind++)
        EQUAL(got[kind], 1);
    settle(s->w);
    ends_with_reply(s->a, "by another");
    EQUAL(rb_load(&s->w->bus->dead_letters), 0);
}
static const struct scenario a_link_s_death_is_dealt_with = {
    "a link's death is dealt with", prepare_link_death, b_dies, check_link_death, false};
PROMISE(a_link_s_death_is_dealt_with)

/* Of what a link brings some is for two, some waits until somebody is free, and another link would take all of it. */
static void prepare_relayed(struct stage *s)
{
    struct sb_record h = {.kind = SB_EVENT, .flags = SB_RAW | SB_RELAYED};
    char group[1 + sizeof(struct sb_origin)] = "g", plain[sizeof(struct sb_origin)] = "";
    reserve_segments();
    s->w->bus->prefetch = 1;
    s->w->bus->backlog_bytes = 2048;
    s->a = join_sized(s->w, "a", TINY);
    s->c = join_sized(s->w, "c", TINY);
    s->b = join_sized(s->w, "@link", TINY);
    s->d = join_sized(s->w, "@other", TINY);
    subscribe_group(s->a, "x", "g", 1);
    subscribe_group(s->d, "x", "g", 1);
    subscribe(s->a, "y");
    subscribe(s->c, "y");
    subscribe(s->d, "y");
    for (int i = 0; i < 2; i++) {
        h.extension_length = 1;
        CHECK(put(s->b, SB_DATA, h, "x", group, sizeof group));
        h.extension_length = 0;
        CHECK(put(s->b, SB_DATA, h, "y", plain, sizeof plain));
    }
    flush(s->b);
}

static void check_relayed(struct stage *s)
{
    struct message m;
    uint32_t groups = 0, plain = 0;
    for (bool more = true; more; settle(s->w))
        for (more = false; take(s->a, &m) || take(s->c, &m); more = true) {
            CHECK(m.header.flags & SB_RELAYED);
            groups += m.header.interests != SB_PLAIN;
            plain += m.header.interests == SB_PLAIN;
        }
    EQUAL(groups, 2);
    EQUAL(plain, 4);
    CHECK(!take(s->d, &m));
    EQUAL(rb_load(&s->w->bus->lost) + rb_load(&s->w->bus->dead_letters) + rb_load(&s->w->bus->violations), 0);
}
static const struct scenario what_a_link_brought_is_forwarded = {
    "what a link brought is forwarded", prepare_relayed, forward, check_relayed, false};
PROMISE(what_a_link_brought_is_forwarded)
