#include "queue/idtree.h"

#include <assert.h>

/* The finalizer of splitmix64: neighbouring ids get unrelated priorities. */
static uint64_t priority(uint64_t key)
{
    key = (key ^ (key >> 30)) * 0xbf58476d1ce4e5b9u;
    key = (key ^ (key >> 27)) * 0x94d049bb133111ebu;
    return key ^ (key >> 31);
}

void idtree_insert(struct idtree *t, struct idtree_node *node, uint64_t key)
{
    struct idtree_node **at = &t->root;
    uint64_t mine = priority(key);
    while (*at && priority((*at)->key) >= mine)
        at = key < (*at)->key ? &(*at)->left : &(*at)->right;
    struct idtree_node *rest = *at;
    struct idtree_node **left = &node->left;
    struct idtree_node **right = &node->right;
    *at = node;
    node->key = key;
    while (rest) { /* split what was here into what is below and above the key */
        assert(rest->key != key);
        if (rest->key < key) {
            *left = rest;
            left = &rest->right;
            rest = rest->right;
        } else {
            *right = rest;
            right = &rest->left;
            rest = rest->left;
        }
    }
    *left = *right = NULL;
    t->count++;
}

void idtree_remove(struct idtree *t, struct idtree_node *node)
{
    struct idtree_node **at = &t->root;
    while (*at != node) {
        assert(*at);
        at = node->key < (*at)->key ? &(*at)->left : &(*at)->right;
    }
    struct idtree_node *left = node->left;
    struct idtree_node *right = node->right;
    while (left && right) {
        if (priority(left->key) >= priority(right->key)) {
            *at = left;
            at = &left->right;
            left = left->right;
        } else {
            *at = right;
            at = &right->left;
            right = right->left;
        }
    }
    *at = left ? left : right;
    t->count--;
}

struct idtree_node *idtree_find(const struct idtree *t, uint64_t key)
{
    struct idtree_node *node = t->root;
    while (node && node->key != key)
        node = key < node->key ? node->left : node->right;
    return node;
}

struct idtree_node *idtree_next(const struct idtree *t, uint64_t after)
{
    struct idtree_node *best = NULL;
    for (struct idtree_node *node = t->root; node;) {
        if (node->key > after) {
            best = node;
            node = node->left;
        } else {
            node = node->right;
        }
    }
    return best;
}
