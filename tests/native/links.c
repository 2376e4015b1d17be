/* Links: what one of several gets is for who is on this bus, else for links, else for their keepers; and what a link
 * brought goes to nobody who would carry it on. */
#include "harness.h"

static const struct sb_origin from_paris = {.source = "there", .site = "paris", .sent_ns = 7, .lost = 3};

/* Put what a link has brought into its ring, not yet visible; `group` becomes the extension. */
static bool put_relayed(struct peer *link, struct sb_record h, const char *type, const char *group, const char *text)
{
    uint8_t rest[256];
    uint64_t size = strlen(group) + strlen(text) + sizeof from_paris;
    memcpy(rest, group, strlen(group));
    memcpy(rest + strlen(group), text, strlen(text));
    memcpy(rest + size - sizeof from_paris, &from_paris, sizeof from_paris);
    h.flags |= SB_RAW | SB_RELAYED;
    h.extension_length = (uint16_t)strlen(group);
    return put(link, SB_DATA, h, type, rest, size);
}

static void relay(struct peer *link, uint16_t kind, const char *type, const char *group, const char *text)
{
    CHECK(put_relayed(link, (struct sb_record){.kind = kind}, type, group, text));
    flush(link);
    settle(link->world);
}

static uint16_t relay_request(struct peer *link, struct sb_record h, const char *type, const char *text)
{
    uint16_t index = 0;
    while (rb_load(&link->pending[index].state) != SB_PENDING_FREE)
        index++;
    struct sb_pending *w = &link->pending[index];
    sb_make_id(w->id, link->generation, ++link->counter, index);
    rb_store_release(&w->state, SB_PENDING_WAITING);
    memcpy(h.correlation, w->id, 16);
    h.kind = SB_REQUEST;
    h.attempt = 1;
    CHECK(put_relayed(link, h, type, "", text));
    flush(link);
    settle(link->world);
    return index;
}

static bool says(const struct message *m, const char *text)
{
    struct sb_origin origin;
    uint64_t size = m->header.length - sb_payload_offset(&m->header), length = strlen(text);
    if (!(m->header.flags & SB_RELAYED) || size != length + sizeof origin || memcmp(m->text, text, length) != 0)
        return false;
    memcpy(&origin, m->text + length, sizeof origin);
    return memcmp(&origin, &from_paris, sizeof origin) == 0;
}

#define GETS_RELAYED(peer, wanted)                                                                              \
    do {                                                                                                        \
        struct message m_;                                                                                      \
        CHECK(take(peer, &m_));                                                                                 \
        CHECK(says(&m_, wanted));                                                                               \
    } while (0)

static bool is_quarantined(struct peer *p)
{
    settle(p->world);
    advance(p->world, SECOND);
    return p->quarantined;
}

/* Ranks -------------------------------------------------------------------------------------------------------- */

TEST(work_is_for_who_is_on_this_bus_else_for_links_else_for_keepers)
{
    struct world *w = new_world();
    struct peer *source = join(w, "source"), *joined[3];
    const char *names[] = {"@@link", "@link", "here"};
    for (int i = 0; i < 3; i++) {
        joined[i] = join(w, names[i]);
        handle(joined[i], i == 2 ? ">" : "a.b"); /* however special the patterns of links are */
        subscribe_group(joined[i], "e", "g", 1);
        send_to_handler(source, "a.b", "command");
        publish(source, "e", "member");
        settle(w);
        GETS(joined[i], "command");
        GETS(joined[i], "member");
    }
    for (int i = 2; i > 0; i--) {
        die(joined[i], SB_REASON_KILLED);
        send_to_handler(source, "a.b", "again");
        settle(w);
        GETS(joined[i - 1], "again");
    }
    close_world(w);
}

TEST(a_link_gets_events_as_any_subscriber_and_a_keeper_gets_none)
{
    struct world *w = new_world();
    struct peer *source = join(w, "source"), *here = join(w, "here"), *link = join(w, "@link");
    struct peer *keeper = join(w, "@@link");
    subscribe(here, "e");
    subscribe(link, "e");
    subscribe(keeper, "e");
    publish(source, "e", "1");
    settle(w);
    GETS(here, "1");
    GETS(link, "1");
    GETS_NOTHING(keeper);
    close_world(w);
}

TEST(what_a_link_had_not_begun_waits_at_its_keeper_and_goes_to_its_successor)
{
    struct world *w = new_world();
    struct peer *source = join(w, "source"), *keeper = join(w, "@@link"), *link = join(w, "@link");
    struct message m;
    for (int i = 0; i < 2; i++) {
        struct peer *p = i ? link : keeper;
        handle(p, "c");
        subscribe_group(p, "e", "g", 1);
    }
    send_to_handler(source, "c", "command");
    uint16_t begun = ask(source, "c", "begun"), index = ask(source, "c", "request");
    settle(w);
    GETS(link, "command");
    CHECK(begin(link, &m) && strcmp(m.text, "begun") == 0);
    send_to_handler(source, "c", "command 2");
    for (int i = 0; i < 3; i++)
        publish(source, "e", "member");
    settle(w);
    die(link, SB_REASON_KILLED);
    GETS_FAULT(source, SB_FAULT_ENDPOINT_DIED, "@link"); /* what it had begun */
    EQUAL(sb_index_of(source->pending[begun].id), begun);
    send_to_handler(source, "c", "command 3");
    settle(w);
    advance(w, 10 * SECOND); /* longer than others need to be stalled */
    EQUAL(rb_load(&w->f->rows[keeper->slot].health), SB_FIT);
    hand_over(w);
    link = join(w, "@link");
    handle(link, "c");
    subscribe_group(link, "e", "g", 1);
    settle(w);
    say_closing(keeper);
    say_closed(keeper);
    CHECK(keeper->reclaimed);
    uint32_t commands = 0, members = 0, requests = 0;
    for (bool more = true; more; settle(w))
        for (more = false; take(link, &m); more = true) {
            commands += m.header.kind == SB_SEND;
            members += m.header.kind == SB_EVENT;
            if (m.header.kind == SB_REQUEST) {
                requests++;
                CHECK(answer(link, &m, "reply"));
            }
        }
    EQUAL(commands, 2);
    EQUAL(members, 3);
    EQUAL(requests, 1);
    GETS_REPLY(source, "reply");
    CHECK(rb_load(&source->pending[index].state) == SB_PENDING_FREE);
    EQUAL(rb_load(&w->bus->dead_letters), 0);
    close_world(w);
}

/* What links bring ----------------------------------------------------------------------------------------------- */

TEST(what_a_link_brought_goes_to_who_is_here_and_to_no_link)
{
    struct world *w = new_world();
    struct peer *here = join(w, "here"), *link = join(w, "@link"), *other = join(w, "@other");
    struct peer *keeper = join(w, "@@link"), *all[] = {here, link, other, keeper};
    for (int i = 0; i < 4; i++) {
        subscribe(all[i], "e");
        handle(all[i], "c");
    }
    relay(link, SB_EVENT, "e", "", "event");
    relay(link, SB_SEND, "c", "", "command");
    relay_request(link, (struct sb_record){0}, "c", "request");
    GETS_RELAYED(here, "event");
    GETS_RELAYED(here, "command");
    GETS_RELAYED(here, "request");
    for (int i = 1; i < 4; i++)
        GETS_NOTHING(all[i]);
    close_world(w);
}

TEST(what_a_link_brought_and_nobody_here_handles_ends_at_once)
{
    struct world *w = new_world();
    struct peer *ear = join(w, "ear"), *link = join(w, "@link"), *other = join(w, "@other");
    struct message m;
    subscribe(ear, "$bus.undeliverable");
    handle(other, ">");
    subscribe_group(other, "e", "g", 1);
    relay_request(link, (struct sb_record){0}, "c", "request");
    GETS_FAULT(link, SB_FAULT_NO_ROUTE, "");
    relay(link, SB_SEND, "c", "", "command");
    relay(link, SB_EVENT, "e", "g", "member");
    for (int i = 0; i < 2; i++) {
        CHECK(take(ear, &m) && mentions(&m, "there@paris") && mentions(&m, i ? "queue group" : "nobody handles it"));
        CHECK(!memmem(m.text, sizeof m.text, &from_paris, sizeof from_paris));
    }
    EQUAL(rb_load(&w->bus->no_route), 2);
    relay(link, SB_EVENT, "e", "", "event");
    EQUAL(rb_load(&link->down->unrouted), 1);
    GETS_NOTHING(other);
    close_world(w);
}

TEST(an_event_that_a_link_brought_is_for_plain_subscriptions_or_for_one_group)
{
    struct world *w = new_world();
    struct peer *plain = join(w, "plain"), *g = join(w, "g"), *h = join(w, "h"), *link = join(w, "@link");
    const char *groups[] = {"", "g", "", "h", "h", "g"};
    subscribe(plain, "e");
    subscribe_group(g, "e", "g", 1);
    subscribe_group(h, "e", "h", 1);
    for (int i = 0; i < 6; i++) { /* in one batch */
        char text[] = {(char)('0' + i), 0};
        CHECK(put_relayed(link, (struct sb_record){.kind = SB_EVENT}, "e", groups[i], text));
    }
    CHECK(put(link, SB_DATA, (struct sb_record){.kind = SB_EVENT, .flags = SB_RAW}, "e", "its own", 7));
    flush(link);
    settle(w);
    GETS_RELAYED(plain, "0");
    GETS_RELAYED(plain, "2");
    GETS(plain, "its own");
    GETS_RELAYED(g, "1");
    GETS_RELAYED(g, "5");
    GETS(g, "its own");
    GETS_RELAYED(h, "3");
    GETS_RELAYED(h, "4");
    GETS(h, "its own");
    close_world(w);
}

TEST(nobody_but_a_link_relays_and_it_says_where_from)
{
    const struct { const char *name, *type, *group; uint16_t kind; bool origin; } cases[] = {
        {"here", "e", "", SB_EVENT, true},       {"here", "e", "", SB_SEND, true},
        {"@@link", "e", "", SB_EVENT, true},     {"@link", "e", "", SB_EVENT, false},
        {"@link", "$bus.link.x", "", SB_EVENT, true}, {"@link", "$bus.up", "", SB_EVENT, true},
        {"@link", "e", "a-group-whose-name-is-longer-than-any-that-an-endpoint-may-have-had", SB_EVENT, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct world *w = new_world();
        struct peer *ear = join(w, "ear"), *p = join(w, cases[i].name);
        struct sb_record h = {.kind = cases[i].kind, .flags = SB_RAW | SB_RELAYED};
        subscribe(ear, ">");
        subscribe(ear, "$bus.link.>");
        if (cases[i].origin)
            CHECK(put_relayed(p, h, cases[i].type, cases[i].group, "1"));
        else
            CHECK(put(p, SB_DATA, h, cases[i].type, "1", 1));
        flush(p);
        CHECK(is_quarantined(p));
        GETS_NOTHING(ear);
        close_world(w);
    }
}

TEST(a_reply_that_a_link_brought_says_where_from_and_nobody_else_s_does)
{
    for (int forged = 0; forged < 2; forged++) {
        struct world *w = new_world();
        struct peer *client = join(w, "client"), *server = join(w, forged ? "here" : "@link");
        struct message m;
        handle(server, "c");
        ask(client, "c", "1");
        settle(w);
        CHECK(take(server, &m));
        uint8_t payload[5 + sizeof from_paris] = "reply";
        memcpy(payload + 5, &from_paris, sizeof from_paris);
        struct sb_record h = {.kind = SB_REPLY, .flags = SB_RAW | SB_RELAYED, .peer = m.header.peer,
                              .peer_generation = m.header.peer_generation};
        memcpy(h.correlation, m.header.correlation, 16);
        CHECK(put(server, SB_REPLIES, h, "", payload, sizeof payload));
        flush(server);
        settle(w);
        if (forged)
            CHECK(is_quarantined(server));
        CHECK(take_reply(client, &m));
        if (forged)
            EQUAL(fault_of(&m).code, SB_FAULT_ENDPOINT_DIED);
        else
            CHECK(says(&m, "reply"));
        close_world(w);
    }
}

TEST(a_link_asks_who_is_here_and_others_who_handles_it_anywhere)
{
    struct world *w = new_world();
    struct peer *here = join(w, "here"), *link = join(w, "@link"), *other = join(w, "@other");
    struct peer *keeper = join(w, "@@link"), *all[] = {here, link, other, keeper};
    for (int i = 0; i < 4; i++) {
        handle(all[i], "c");
        subscribe(all[i], "c");
    }
    for (int i = 0; i < 2; i++) {
        struct peer *asker = i ? link : here;
        struct message m;
        struct sb_found found;
        query(asker, "c", 0);
        settle(w);
        CHECK(take_reply(asker, &m));
        memcpy(&found, m.text, sizeof found);
        EQUAL(found.handlers, i ? 1 : 3);
        EQUAL(found.receivers, i ? 1 : 3);
        uint64_t whom;
        memcpy(&whom, m.text + sizeof found, sizeof whom);
        EQUAL(whom, sb_whom(here->slot, here->generation));
    }
    relay_request(link, (struct sb_record){.flags = SB_DIRECTED, .peer = (uint16_t)here->slot,
                                           .peer_generation = here->generation}, "c", "request");
    GETS_RELAYED(here, "request");
    relay_request(link, (struct sb_record){.flags = SB_DIRECTED, .peer = (uint16_t)other->slot,
                                           .peer_generation = other->generation}, "c", "request");
    CHECK(is_quarantined(link));
    GETS_NOTHING(other);
    close_world(w);
}

/* It stays what it is ------------------------------------------------------------------------------------------- */

TEST(what_a_link_brought_for_a_group_stays_on_this_bus_wherever_it_waits_and_whoever_dies)
{
    struct world *w = new_world();
    struct peer *a = join(w, "a"), *b = join(w, "b"), *ear = join(w, "ear"), *link = join(w, "@link");
    struct peer *other = join(w, "@other");
    struct message m;
    subscribe(ear, "$bus.undeliverable");
    subscribe_group(a, "e", "g", 1);
    subscribe_group(b, "e", "g", 1);
    subscribe_group(other, "e", "g", 1);
    rb_store(&a->up->receivers, 1);
    rb_store(&b->up->receivers, 1);
    for (int i = 0; i < 6; i++)
        CHECK(put_relayed(link, (struct sb_record){.kind = SB_EVENT}, "e", "g", "1"));
    flush(link);
    settle(w);
    CHECK(begin(a, &m) && says(&m, "1"));
    CHECK(rb_load(&w->bus->backlog[0])); /* some wait */
    hand_over(w);
    die(a, SB_REASON_KILLED); /* with one that it has begun */
    uint32_t got = 0, again = 0;
    for (bool more = true; more && got < 5; settle(w))
        for (more = false; got < 5 && take(b, &m); more = true, got++) {
            CHECK(says(&m, "1"));
            again += m.header.flags & SB_REDELIVERED ? 1 : 0;
        }
    CHECK(again > 0);
    hand_over(w);
    GETS_NOTHING(other);
    die(b, SB_REASON_KILLED); /* with the last one, and nobody is left */
    GETS_NOTHING(other);
    CHECK(take(ear, &m) && mentions(&m, "there@paris") && mentions(&m, "queue group"));
    EQUAL(rb_load(&w->bus->dead_letters), 1);
    close_world(w);
}

TEST(what_a_link_brought_and_is_given_back_goes_to_another_who_is_here)
{
    struct world *w = new_world();
    struct peer *a = join(w, "a"), *link = join(w, "@link"), *other = join(w, "@other");
    struct message m;
    handle(a, "c");
    handle(other, "c");
    relay(link, SB_SEND, "c", "", "command");
    CHECK(begin(a, &m) && says(&m, "command"));
    struct peer *b = join(w, "b");
    handle(b, "c");
    struct sb_record h = {.kind = SB_NACK, .flags = SB_RAW | SB_RELAYED, .interests = SB_PLAIN, .peer = m.header.peer,
                          .peer_generation = m.header.peer_generation, .attempt = 2};
    CHECK(put(a, SB_DATA, h, "c", m.text, m.header.length - sb_payload_offset(&m.header)));
    flush(a);
    finish(a, &m);
    settle(w);
    GETS_RELAYED(b, "command");
    GETS_NOTHING(other);
    h.flags |= SB_FINAL;
    CHECK(put(a, SB_DATA, h, "c", "", 0)); /* nothing of it is there any more */
    h.flags &= (uint16_t)~SB_FINAL;
    CHECK(put(a, SB_DATA, h, "c", "1", 1));
    flush(a);
    settle(w);
    EQUAL(rb_load(&w->bus->dead_letters), 1);
    CHECK(is_quarantined(a));
    close_world(w);
}

TEST(a_fan_out_of_what_a_link_brought_goes_on_as_it_was_after_a_dispatcher_s_death)
{
    struct world *w = new_world();
    struct peer *a = join(w, "a"), *slow = join_sized(w, "slow", (struct size){.data_in = 1024});
    struct peer *link = join(w, "@link"), *other = join(w, "@other");
    subscribe(a, "e");
    subscribe(slow, "e");
    subscribe(other, "e");
    for (int i = 0; i < 8; i++)
        relay(link, SB_EVENT, "e", "", "1");
    CHECK(dp_todo_stands(&w->f->ports[link->slot]));
    hand_over(w);
    for (int i = 0; i < 8; i++) {
        GETS_RELAYED(slow, "1");
        settle(w);
        GETS_RELAYED(a, "1");
    }
    GETS_NOTHING(other);
    CHECK(!link->quarantined);
    close_world(w);
}

TEST(what_stands_for_a_slow_subscriber_cannot_become_what_a_link_brought)
{
    struct world *w = new_world();
    struct peer *a = join(w, "a"), *slow = join_sized(w, "slow", (struct size){.data_in = 1024});
    struct peer *source = join(w, "source");
    char text[150];
    memset(text, 'x', sizeof text);
    subscribe(a, "e");
    subscribe(slow, "e");
    for (int i = 0; i < 8; i++)
        CHECK(put(source, SB_DATA, (struct sb_record){.kind = SB_EVENT, .flags = SB_RAW}, "e", text, sizeof text));
    flush(source);
    settle(w);
    const struct sb_todo *todo = &source->down->todo;
    CHECK(rb_load(&todo->from) != SB_NOWHERE);
    uint8_t *ring = (uint8_t *)source->up + source->up->outgoing_ring[SB_DATA].offset;
    ((struct sb_record *)(void *)(ring + rb_load(&todo->from)))->flags |= SB_RELAYED;
    while (count_messages(slow))
        ;
    CHECK(is_quarantined(source));
    close_world(w);
}

TEST(a_value_that_a_link_brought_is_kept_for_who_is_here)
{
    struct world *w = new_world();
    struct peer *link = join(w, "@link"), *here = join(w, "here"), *other = join(w, "@other");
    struct message m;
    CHECK(put_relayed(link, (struct sb_record){.kind = SB_EVENT, .flags = SB_RETAIN}, "e", "", "far"));
    flush(link);
    settle(w);
    CHECK(retain(here, "f", "near"));
    settle(w);
    for (int successor = 0; successor < 2; successor++) {
        char names[2][8] = {"here0", "@other0"};
        names[0][4] = names[1][6] = (char)('0' + successor);
        struct late_ear ours = subscribe_late(join(w, names[0]), ">", 1);
        struct late_ear theirs = subscribe_late(join(w, names[1]), ">", 1);
        CHECK(hear(&ours, &m) && says(&m, "far") && m.header.flags & SB_RETAINED);
        CHECK(hear(&ours, &m) && strcmp(m.text, "near") == 0);
        CHECK(hear(&theirs, &m) && strcmp(m.text, "near") == 0);
        CHECK(!hear(&theirs, &m) && theirs.live);
        hand_over(w);
    }
    subscribe_group(here, "e", "g", 1);
    CHECK(put_relayed(link, (struct sb_record){.kind = SB_EVENT, .flags = SB_RETAIN}, "e", "g", "for one"));
    flush(link);
    settle(w);
    GETS_RELAYED(here, "for one");
    EQUAL(rb_load(&w->bus->retained), 2); /* what is for one group alone is not kept */
    GETS_NOTHING(other);
    close_world(w);
}

TEST(of_what_a_link_brought_each_key_goes_to_its_owner_here)
{
    struct world *w = new_world();
    struct peer *a = join(w, "a"), *b = join(w, "b"), *link = join(w, "@link");
    const char *type = type_of(link, b); /* which the link would have, were it a member beside b */
    struct message m;
    subscribe_keyed(link, "o.*.x", "g", 1, ID);
    publish(a, type, "1");
    settle(w);
    CHECK(begin(link, &m) && strcmp(m.text, "1") == 0);
    relay(link, SB_EVENT, type, "g", "nobody");
    EQUAL(rb_load(&w->bus->dead_letters), 1);
    subscribe_keyed(b, "o.*.x", "g", 1, ID);
    relay(link, SB_EVENT, type, "g", "2");
    publish(a, type, "3");
    settle(w);
    GETS_NOTHING(b); /* the link is not done with that key */
    GETS_NOTHING(link);
    finish(link, &m);
    raise_ready(link);
    settle(w);
    GETS_RELAYED(b, "2");
    GETS(b, "3");
    subscribe_keyed(a, "o.*.x", "g", 1, ID);
    settle(w);
    relay(link, SB_EVENT, type_of(a, b), "g", "4");
    GETS_RELAYED(a, "4");
    die(b, SB_REASON_KILLED);
    die(a, SB_REASON_KILLED);
    publish(join(w, "c"), type, "5"); /* and the link has it again */
    settle(w);
    GETS(link, "5");
    close_world(w);
}

/* What links say ------------------------------------------------------------------------------------------------ */

TEST(links_publish_what_they_say_of_themselves_and_nobody_else_does)
{
    struct world *w = new_world();
    struct peer *ear = join(w, "ear"), *link = join(w, "@link"), *keeper = join(w, "@@link"), *here = join(w, "here");
    struct message m;
    subscribe(ear, "$bus.link.>");
    CHECK(publish(link, "$bus.link.up", "1"));
    CHECK(retain(link, "$bus.link.done.paris", "2"));
    settle(w);
    GETS(ear, "1");
    GETS(ear, "2");
    struct late_ear late = subscribe_late(join(w, "late"), "$bus.link.done.paris", 1);
    CHECK(hear(&late, &m) && strcmp(m.text, "2") == 0);
    CHECK(publish(keeper, "$bus.link.up", "3"));
    CHECK(publish(here, "$bus.link.up", "4"));
    CHECK(is_quarantined(keeper));
    CHECK(is_quarantined(here));
    CHECK(!link->quarantined);
    CHECK(send_to_handler(link, "$bus.link.up", "5"));
    CHECK(is_quarantined(link));
    GETS_NOTHING(ear);
    close_world(w);
}

TEST(who_asks_by_name_is_told_once_of_all_that_changes_in_the_routes_at_a_time)
{
    struct world *w = new_world();
    struct peer *ear = join(w, "ear"), *all = join(w, "all"), *p = join(w, "p");
    subscribe(all, "$bus.>");
    subscribe(ear, "$bus.routes");
    subscribe(ear, "$bus.routes"); /* once, however often */
    EQUAL(count_messages(ear), 2);
    struct sb_interest e = {.op = SB_INTEREST_ADD, .role = SB_ROLE_SUBSCRIBE};
    for (int i = 0; i < 5; i++)
        log_interest(p, e, "e", "");
    tell_interests(p);
    settle(w);
    EQUAL(count_messages(ear), 1);
    publish(p, "e", "1");
    settle(w);
    EQUAL(count_messages(ear), 0);
    die(p, SB_REASON_KILLED);
    EQUAL(count_messages(ear), 1);
    hand_over(w);
    EQUAL(count_messages(ear), 1); /* what the one before had told nobody knows */
    EQUAL(count_messages(all), 1); /* the death */
    close_world(w);
}
