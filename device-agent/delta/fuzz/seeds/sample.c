extern int other(int, const char *);
static const char *names[] = {"one", "two", "three"};
int table[8] = {1,2,3};
int (*handlers[2])(int, const char *) = {other, 0};
static int helper(int a) { return a * 7 + table[a & 7]; }
int first(int a) { return other(helper(a), names[a % 3]); }
int second(int a) { int s = 0; for (int i = 0; i < a; i++) s += first(i) ^ helper(i); return s; }
#ifdef MORE
int third(int a) { return second(a) + other(a, "a longer text than before"); }
#endif
int last(int a) { return second(a) - first(a) + handlers[a & 1](a, names[0]); }
