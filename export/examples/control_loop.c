/*
 * Runs an exported policy once in every control period, on Linux and other systems with clock_nanosleep.
 *
 *     crl-distill export runs/student --format c --out robot
 *     cp control_loop.c robot && cd robot
 *     cc -std=c99 -O2 control_loop.c policy.c -o control_loop -lm && ./control_loop 1000
 *
 * Fill in `sense`, `act` and `fallback`; policy.h names the meaning of every number. `policy_act` checks nothing. Where
 * the sensors give a number that is not finite, the loop sends the fallback instead of an action. Add bounds that your
 * sensors keep. A policy that remembers is not given what is at fault, and starts anew after an action that is not finite.
 * The file compiles as C++ too.
 */
#define _POSIX_C_SOURCE 200112L

#include "policy.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#ifdef POLICY_SENSORS
#define READ POLICY_SENSORS
#else
#define READ POLICY_OBSERVATION
#endif

#ifdef POLICY_MEMORY
static policy_state state;
static void decide(const float *read, const float *goal, float *action) { policy_act(&state, read, goal, action); }
static void start_episode(void) { policy_reset(&state); }
#else
static void decide(const float *read, const float *goal, float *action) { policy_act(read, goal, action); }
static void start_episode(void) {}
#endif

/* The action to send when the sensors are at fault, in the units of policy.h. */
static const float fallback[POLICY_ACTION] = {0.0f};

static void sense(float *read, float *goal)
{
    for (int i = 0; i < READ; i++)
        read[i] = 0.0f; /* read your sensors here */
    for (int i = 0; i < POLICY_GOAL; i++)
        goal[i] = 0.0f; /* set the goal here */
}

static void act(const float *action)
{
    (void)action; /* send it to your actuators here */
}

static int all_finite(const float *numbers, int count)
{
    for (int i = 0; i < count; i++)
        if (!isfinite(numbers[i]))
            return 0;
    return 1;
}

static void advance(struct timespec *tick, long nanoseconds)
{
    tick->tv_nsec += nanoseconds;
    while (tick->tv_nsec >= 1000000000L) {
        tick->tv_nsec -= 1000000000L;
        tick->tv_sec++;
    }
}

int main(int count, char **arguments)
{
    const long steps = count > 1 ? strtol(arguments[1], NULL, 10) : 1000;
    const long period = (long)(1e9f * POLICY_CONTROL_PERIOD + 0.5f);
    float read[READ], goal[POLICY_GOAL], action[POLICY_ACTION];
    struct timespec tick, now;
    long missed = 0, fallbacks = 0;

    start_episode();
    clock_gettime(CLOCK_MONOTONIC, &tick);
    for (long step = 0; step < steps; step++) {
        int is_sound;

        sense(read, goal);
        is_sound = all_finite(read, READ) && all_finite(goal, POLICY_GOAL);
        if (is_sound) {
            decide(read, goal, action);
            if (!all_finite(action, POLICY_ACTION)) { /* a number was too large for the network */
                is_sound = 0;
                start_episode();
            }
        }
        if (is_sound) {
            act(action);
        } else {
            fallbacks++;
            act(fallback);
        }
        advance(&tick, period);
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (now.tv_sec > tick.tv_sec || (now.tv_sec == tick.tv_sec && now.tv_nsec > tick.tv_nsec)) {
            missed++;
            tick = now; /* skip missed ticks: a burst of late actions would be worse */
        }
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &tick, NULL) == EINTR) {
        }
    }
    printf("%ld steps, %ld late, %ld with the fallback\n", steps, missed, fallbacks);
    return 0;
}
