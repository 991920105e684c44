/* SPDX-License-Identifier: MIT */
/* json: one object a line, for programs that read the monitor. */
#ifndef KERNEL_MONITOR_JSON_H
#define KERNEL_MONITOR_JSON_H

#include <mm/types.h>

/* Version of all objects: members may be added within one. */
#define JSON_VERSION 1

/* {"v":1,"kind":"@kind" */
void json_begin(const char *kind);
/* Members. Addresses and entries are strings, "0x...": 64 bits keep whole. */
void json_text(const char *key, const char *value);
void json_number(const char *key, uint64_t value);
void json_hex(const char *key, uint64_t value);
void json_bool(const char *key, bool value);
/* } and the end of the line */
void json_end(void);

#endif
