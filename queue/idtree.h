/*
 * Messages by id, in order: a tree balanced by chance, whose nodes are embedded in what they index.
 *
 * A treap: each node's priority is a hash of its key, so nothing is stored for the balance and
 * equal contents give equal trees. Find, insert, remove and next are O(log n) on average. Pure.
 */
#ifndef OUTTRAY_QUEUE_IDTREE_H
#define OUTTRAY_QUEUE_IDTREE_H

#include <stddef.h>
#include <stdint.h>

struct idtree_node {
    uint64_t key;
    struct idtree_node *left;
    struct idtree_node *right;
};

struct idtree {
    struct idtree_node *root;
    size_t count;
};

/* The key must not be in the tree. */
void idtree_insert(struct idtree *t, struct idtree_node *node, uint64_t key);
/* The node must be in the tree. */
void idtree_remove(struct idtree *t, struct idtree_node *node);
struct idtree_node *idtree_find(const struct idtree *t, uint64_t key);
/* The node with the smallest key above `after`, or NULL. */
struct idtree_node *idtree_next(const struct idtree *t, uint64_t after);

#endif
