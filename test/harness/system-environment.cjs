/** Jest's Node environment which tells the tests' own afterEach whether something has failed, so that it can show logs. */
const { TestEnvironment } = require('jest-environment-node');

module.exports = class extends TestEnvironment {
  async handleTestEvent(event) {
    if (event.name === 'test_start') this.global.testHasFailed = false;
    if (
      event.name === 'test_fn_failure' ||
      (event.name === 'hook_failure' && event.hook.type.startsWith('before'))
    ) {
      this.global.testHasFailed = true;
    }
  }
};
