/* Payloads in pools: what is sent with a block, shared by its receivers, and returned. */
#include "harness.h"
#include "pooled.h"

TEST(a_block_comes_back_when_all_have_looked)
{
    struct world *w = new_world();
    struct peer *a = join(w, "a"), *b = join(w, "b"), *c = join(w, "c");
    struct message m;
    subscribe(a, "x");
    subscribe(b, "x");
    make_pool(a), make_pool(b), make_pool(c);
    struct sb_block block = publish_block(c, "x", 0, "picture");
    settle(w);
    CHECK(!is_returned(c, &block));
    CHECK(take_shared(a, &m) && take_shared(b, &m));
    EQUAL(block_of(&m).length, strlen("picture"));
    settle(w);
    CHECK(!is_returned(c, &block));
    look_no_more(a, 0);
    settle(w);
    CHECK(!is_returned(c, &block));
    look_no_more(b, 0);
    settle(w);
    CHECK(is_returned(c, &block));
    close_world(w);
}
