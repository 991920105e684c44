/* SPDX-License-Identifier: MIT */
/* json: one object a line, for programs that read the monitor. */
#include "kernel/monitor/json.h"

#include "kernel/console/console.h"

void json_begin(const char *kind)
{
    printk("{\"v\":%d", JSON_VERSION);
    json_text("kind", kind);
}

/* A string with what JSON does not allow in it escaped. */
static void print_string(const char *text)
{
    printk("\"");
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;

        if (c == '"' || c == '\\') {
            printk("\\%c", c);
        } else if (c < ' ') {
            printk("\\u%04x", c);
        } else {
            printk("%c", c);
        }
    }
    printk("\"");
}

void json_text(const char *key, const char *value)
{
    printk(",\"%s\":", key);
    print_string(value);
}

void json_number(const char *key, uint64_t value)
{
    printk(",\"%s\":%lu", key, value);
}

void json_hex(const char *key, uint64_t value)
{
    printk(",\"%s\":\"0x%lx\"", key, value);
}

void json_bool(const char *key, bool value)
{
    printk(",\"%s\":%s", key, value ? "true" : "false");
}

void json_end(void)
{
    printk("}\n");
}
